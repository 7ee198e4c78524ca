`status` says which machines the bytes of a content came from, also below the machines of `--fleet`; with
a content's name it shows that content only.
