// Reads and writes ports that nothing answers, in each width.
#include "guest.inc"
.set PORT, 0x7e0
main:
  movw $PORT, %dx
  xorl %eax, %eax
  inb %dx, %al
  call show
  movw $PORT, %dx
  xorl %eax, %eax
  inw %dx, %ax
  call show
  movw $PORT, %dx
  inl %dx, %eax
  call show
  movw $PORT, %dx
  outb %al, %dx
  outw %ax, %dx
  outl %eax, %dx
  print "port writes done\n"
  ret
show:
  pushl %eax
  print "port "
  popl %eax
  call put_hex
  print "\n"
  ret
