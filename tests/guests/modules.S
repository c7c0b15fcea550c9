// Says how many modules it was given, and the size and the sum of the first one's bytes (at most 4096 of them).
#include "guest.inc"
main:
  print "modules "
  movl START_INFO_NR_MODULES(%ebx), %eax
  call put_decimal
  cmpl $0, START_INFO_NR_MODULES(%ebx)
  je 3f
  print ", first has "
  movl START_INFO_MODLIST(%ebx), %edi
  movl 8(%edi), %eax          // hvm_modlist_entry: paddr, size, cmdline_paddr, reserved
  call put_decimal
  print " bytes, sum "
  movl (%edi), %esi
  movl 8(%edi), %ecx
  xorl %ebx, %ebx
  xorl %eax, %eax
  cmpl $4096, %ecx
  jbe 1f
  movl $4096, %ecx
1:
  jecxz 2f
  lodsb
  addl %eax, %ebx
  decl %ecx
  jmp 1b
2:
  movl %ebx, %eax
  call put_decimal
3:
  print "\n"
  ret
