// Gives back each byte of the serial port until ^D.
#include "guest.inc"
main:
  print "echo ready\n"
1:
  movw $(COM1 + 5), %dx
  inb %dx, %al
  testb $LSR_DATA_READY, %al
  jz 1b
  movw $COM1, %dx
  inb %dx, %al
  cmpb $4, %al
  je 2f
  call put_char
  jmp 1b
2:
  print "echo done\n"
  ret
