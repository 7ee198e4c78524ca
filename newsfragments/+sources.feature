`status` says which machines the bytes of a content came from; with a content's name it shows that content
only.
