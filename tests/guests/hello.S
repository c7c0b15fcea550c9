// Says two lines.
#include "guest.inc"
main:
  print "hello from the guest\n"
  print "good bye\n"
  ret
