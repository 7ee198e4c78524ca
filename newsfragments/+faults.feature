Whole swarms are simulated under faults drawn from one number (loss, partitions, pauses, crashes, failing disks, liars): fifty in the test suite, thousands with `tools/sweep.py`.
