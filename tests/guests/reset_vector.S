// Goes where a PC's firmware begins, as Linux does when it reboots and knows no better way.
#include "guest.inc"
.set RESET_VECTOR, 0xffff0
main:
  movl $RESET_VECTOR, %eax
  jmp *%eax
