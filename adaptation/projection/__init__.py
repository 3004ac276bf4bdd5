"""Fine-tuning that stays near an anchor: FTP, TPGM, SPD, L2-SP, a bound for BatchNorm statistics, and reports."""
