// Counts for ever, a line a number, slowly enough that no reader loses a line.
#include "guest.inc"
main:
  xorl %ebx, %ebx
next:
  print "tick "
  movl %ebx, %eax
  call put_hex
  print "\n"
  incl %ebx
  movl $10000, %ecx
1:
  pause
  loop 1b
  jmp next
