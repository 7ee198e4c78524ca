Grants are asked for only where there are places for them, pieces are a thousandth of a file, and a
grant tells that its sender has the piece: fewer control frames, and less CPU.
