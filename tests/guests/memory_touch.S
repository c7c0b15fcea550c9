// Writes one word of each page that the memory map calls usable, from 2 MiB up to 4 GiB, reads it again, and says how
// much that was.
#include "guest.inc"
.set FROM, 0x200000
main:
  movl START_INFO_MEMMAP(%ebx), %esi
  movl START_INFO_MEMMAP_ENTRIES(%ebx), %ebp
  xorl %ebx, %ebx             // pages
next:
  testl %ebp, %ebp
  jz done
  decl %ebp
  movl %esi, %edi
  addl $24, %esi              // sizeof(hvm_memmap_table_entry): addr, size, type, reserved
  cmpl $1, 16(%edi)           // XEN_HVM_MEMMAP_TYPE_RAM
  jne next
  cmpl $0, 4(%edi)
  jne next
  movl (%edi), %eax
  movl 8(%edi), %ecx
  addl %eax, %ecx             // end
  cmpl $FROM, %eax
  jae 1f
  movl $FROM, %eax
1:
  cmpl %ecx, %eax
  jae next
  movl %eax, (%eax)
  cmpl %eax, (%eax)
  jne broken
  incl %ebx
  addl $4096, %eax
  jmp 1b
done:
  print "touched "
  movl %ebx, %eax
  shll $2, %eax
  call put_decimal
  print " KiB\n"
  ret
broken:
  pushl %eax
  print "memory broken at "
  popl %eax
  call put_hex
  print "\n"
  ret
