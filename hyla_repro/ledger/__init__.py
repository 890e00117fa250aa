"""Files of runs and of committed results: who trains what, what is finished, what was altered."""
