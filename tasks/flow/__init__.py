"""The function of each task: read records, call the packages along the flow, return a record.

Records hold what is deterministic only: ids, digests, names. Programs and the network are
reached through the rooms; these functions only put them in line.
"""
