// Says how many processors run: it starts all others and counts those that answer. The command line is the number to
// wait for.
#include "guest.inc"
.set APIC, 0xfee00000           // the local APIC where a processor has it after a reset
.set APIC_SPURIOUS, 0xf0
.set APIC_COMMAND, 0x300
.set TRAMPOLINE, 0x8000         // where the others begin, in real mode
.set COUNT, 0x9000
main:
  movl START_INFO_CMDLINE(%ebx), %esi
  xorl %ebp, %ebp
1:
  movzbl (%esi), %eax
  subl $'0', %eax
  cmpl $9, %eax
  ja 2f
  imull $10, %ebp
  addl %eax, %ebp
  incl %esi
  jmp 1b
2:
  decl %ebp                     // others
  movl $0, COUNT
  movl $trampoline, %esi
  movl $TRAMPOLINE, %edi
  movl $(trampoline_end - trampoline), %ecx
  rep movsb
  movl $0x1ff, APIC + APIC_SPURIOUS
  movl $0x000c4500, APIC + APIC_COMMAND       // INIT to all but itself
  movl $200000, %ecx
  call delay
  movl $0x000c4600 + TRAMPOLINE / 4096, APIC + APIC_COMMAND
  movl $20000, %ecx
  call delay
  movl $0x000c4600 + TRAMPOLINE / 4096, APIC + APIC_COMMAND
  movl $4000, %edi
1:
  cmpl %ebp, COUNT
  jae 2f
  movl $5000, %ecx
  call delay
  decl %edi
  jnz 1b
2:
  movl $200000, %ecx            // for those that nobody waits for
  call delay
  print "processors "
  movl COUNT, %eax
  incl %eax
  call put_decimal
  print "\n"
  ret
delay:
  pause
  loop delay
  ret
.code16
trampoline:
  xorw %ax, %ax
  movw %ax, %ds
  lock incl COUNT
1:
  cli
  hlt
  jmp 1b
trampoline_end:
.code32
