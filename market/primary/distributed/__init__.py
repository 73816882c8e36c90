"""The primary market cleared by many atoms that keep their data: PAC, NST-PAC and ADMM."""
