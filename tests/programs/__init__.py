"""Programs that tests run in processes of their own; see tests.kit.programs."""
