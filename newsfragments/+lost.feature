A machine that crashed in the middle is shown as lost after 45 s (in large fleets later), and no longer as
slow: in `status --fleet`, `why`, on the page and as `lost` in JSON. `wait --all` ends with 6 and names it
once all others are done, as it does for failed ones; `--exit-when fleet-done` gives it 5 minutes and ends
with 1. Both waited for half an hour, and then called the fleet done. `wait` says why each straggler is one.
