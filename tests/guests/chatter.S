// Says a mebibyte: more than the host keeps of a console.
.set LINES, 16384
#include "flood.S"
