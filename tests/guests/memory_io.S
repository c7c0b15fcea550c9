// Reads and writes an address between memory and 4 GiB that nothing answers, in each width.
#include "guest.inc"
.set ADDRESS, 0xd0000000
main:
  movzbl ADDRESS, %eax
  call show
  movzwl ADDRESS, %eax
  call show
  movl ADDRESS, %eax
  call show
  movb $0x11, ADDRESS
  movw $0x2222, ADDRESS
  movl $0x33333333, ADDRESS
  print "mmio writes done\n"
  ret
show:
  pushl %eax
  print "mmio "
  popl %eax
  call put_hex
  print "\n"
  ret
