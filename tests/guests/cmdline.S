// Says its command line.
#include "guest.inc"
main:
  print "cmdline: "
  movl START_INFO_CMDLINE(%ebx), %esi
  testl %esi, %esi
  jz 1f
  call put_string
1:
  print "\n"
  ret
