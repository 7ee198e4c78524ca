Holes of sparse files are neither read nor hashed, metadata of folders with very many files takes a
tenth of the memory, and a thousand contents in one process find their peers in a third of the time,
idle at a third of the CPU, and hold no open file while nobody asks for them.
