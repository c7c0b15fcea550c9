// Goes on where there is no memory: KVM cannot emulate that and gives up (KVM_EXIT_INTERNAL_ERROR).
#include "guest.inc"
main:
  print "leaving memory\n"
  movl $0xd0000000, %eax
  jmp *%eax
