// Says more than the host keeps of a console (256 KiB) and a socket holds, in a hurry: bytes may be lost. Then stays.
#define LINES 9216
#define BURST 64
#define STAYS
#include "flood.S"
