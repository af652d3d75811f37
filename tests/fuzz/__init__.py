"""Small checkpoints of every format, damaged at random: what reads them may only refuse them."""
