// The PVH entry of guests written in C: calls main(start_info) in 32-bit protected mode and powers off when it returns.
.section .note.Xen, "a", @note
.balign 4
  .long 4                     // size of the name
  .long 4                     // size of the value
  .long 18                    // XEN_ELFNOTE_PHYS32_ENTRY
  .asciz "Xen"
  .long _start

.section .bss
.balign 16
  .skip 16384
stack_top:

.text
.globl _start
_start:
  cli
  cld
  movl $stack_top, %esp
  pushl %ebx
  call main
  movw $0x600, %dx
  movb $0x34, %al
  outb %al, %dx
1:
  hlt
  jmp 1b
