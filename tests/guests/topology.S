// Says of each processor that runs its number and how it shares cores and packages, as CPUID tells it (Intel SDM, volume
// 2, leaves 1 and 0xb): "cpu ID threads BITS NUMBER package BITS NUMBER". The command line is the number to wait for.
#include "guest.inc"
.set APIC, 0xfee00000           // the local APIC where a processor has it after a reset
.set APIC_SPURIOUS, 0xf0
.set APIC_COMMAND, 0x300
.set TRAMPOLINE, 0x8000         // where the others begin, in real mode
.set COUNT, 0x9000              // of those that have written down what they are
.set NEXT, 0x9004               // the next place in the table
.set TABLE, 0x9100
.set ENTRY_BITS, 5              // an entry is 32 bytes

// Writes down what this processor is at TABLE + %edi. Changes all others but %esi, %ebp and %esp.
.macro describe
  movl $1, %eax
  cpuid
  shrl $24, %ebx
  movl %ebx, TABLE(%edi)
  xorl %eax, %eax
  cpuid
  cmpl $0xb, %eax
  jb .Ldescribed_\@
  movl $0xb, %eax
  xorl %ecx, %ecx
  cpuid
  movl %edx, TABLE(%edi)
  movl %eax, TABLE + 4(%edi)
  movl %ebx, TABLE + 8(%edi)
  movl $0xb, %eax
  movl $1, %ecx
  cpuid
  movl %eax, TABLE + 12(%edi)
  movl %ebx, TABLE + 16(%edi)
.Ldescribed_\@:
.endm

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
  movl $COUNT, %edi             // and the table of 64
  xorl %eax, %eax
  movl $(0x100 + (64 << ENTRY_BITS)) / 4, %ecx
  rep stosl
  movl $1, NEXT
  movl $trampoline, %esi
  movl $TRAMPOLINE, %edi
  movl $(trampoline_end - trampoline), %ecx
  rep movsb
  xorl %edi, %edi
  describe
  movl $1, COUNT
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
  xorl %edi, %edi
  movl COUNT, %ebp
3:
  print "cpu "
  movl TABLE(%edi), %eax
  call put_decimal
  print " threads "
  movl TABLE + 4(%edi), %eax
  call put_decimal
  print " "
  movl TABLE + 8(%edi), %eax
  call put_decimal
  print " package "
  movl TABLE + 12(%edi), %eax
  call put_decimal
  print " "
  movl TABLE + 16(%edi), %eax
  call put_decimal
  print "\n"
  addl $(1 << ENTRY_BITS), %edi
  decl %ebp
  jnz 3b
  ret
delay:
  pause
  loop delay
  ret
.code16
trampoline:
  xorw %ax, %ax
  movw %ax, %ds
  movl $1, %edi
  lock xaddl %edi, NEXT
  cmpl $64, %edi
  jae 1f
  shll $ENTRY_BITS, %edi
  describe
  lock incl COUNT
1:
  cli
  hlt
  jmp 1b
trampoline_end:
.code32
