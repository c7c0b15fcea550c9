// Says more than the host keeps of a console (256 KiB) and a socket to a client holds (64 KiB, and 16 KiB on their way),
// in a hurry: bytes may be lost. Then stays.
// After each 64 KiB it asks, and waits for a byte of input: who reads before he types loses nothing.
#define LINES 6144
#define LINES_AT_A_TIME 1024
#define BURST 64
#define STAYS
#include "flood.S"
