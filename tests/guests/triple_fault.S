// An invalid instruction without any handler.
#include "guest.inc"
main:
  jmp fault_thrice
