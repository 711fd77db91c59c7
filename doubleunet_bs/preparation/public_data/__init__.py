"""Public data sets by name (`prepare --dataset`): what lies in their archives, checked, as scans and labels."""
