// Asks the keyboard controller for a reset.
#include "guest.inc"
main:
  movb $0xfe, %al
  outb %al, $0x64
  jmp fault_thrice            // where there is no such controller
