// Says 512 numbered lines of 64 bytes as fast as a 16550 takes them: 16 bytes for each time it is empty.
#include "guest.inc"
#ifndef LINES
#define LINES 512
#define BURST 16
#endif
main:
  movw $(COM1 + 2), %dx       // FIFOs on and empty
  movb $0x07, %al
  outb %al, %dx
  xorl %ebx, %ebx
next_line:
  movl %ebx, %edx
  movl $line, %edi
  movl $8, %ecx
1:
  roll $4, %edx
  movb %dl, %al
  andb $15, %al
  addb $'0', %al
  cmpb $'9', %al
  jbe 2f
  addb $('a' - '0' - 10), %al
2:
  stosb
  loop 1b
  movl $line, %esi
  movl $(64 / BURST), %ebp
3:
  movw $(COM1 + 5), %dx
4:
  inb %dx, %al
  testb $LSR_THR_EMPTY, %al
  jz 4b
  movw $COM1, %dx
  movl $BURST, %ecx
  rep outsb
  decl %ebp
  jnz 3b
  incl %ebx
  cmpl $LINES, %ebx
  je 7f
#ifdef LINES_AT_A_TIME
  testl $(LINES_AT_A_TIME - 1), %ebx
  jnz next_line
  print "more?\n"
  movw $(COM1 + 5), %dx
6:
  pause
  inb %dx, %al
  testb $LSR_DATA_READY, %al
  jz 6b
  movw $COM1, %dx
  inb %dx, %al
#endif
  jmp next_line
7:
#ifdef STAYS
  print "said it all\n"
5:
  pause
  jmp 5b
#endif
  ret
.data
line:
  .ascii "00000000 the quick brown fox jumps over the lazy dog 0123456789\n"
