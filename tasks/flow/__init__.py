"""What each task does: read records, call the rooms along the flow, return the record.

Records hold what is deterministic only: ids, digests, names. Programs and the network are
reached through the rooms; these functions only put them in line.
"""
