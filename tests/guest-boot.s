# SPDX-License-Identifier: BSD-3-Clause
# The boot sector of a guest without an operating system: through the BIOS it writes sector
# FIRST + n, filled with the number n, reads it back and compares, for each n below COUNT, and says
# a letter on the first serial port: B at the start, w for each sector, E and an error code at the
# first error, D at the end; then it stops.  Every fourth sector waits for the clock.
	.code16
	.globl _start
	.set FIRST, 2048
	.set COUNT, 120
_start:
	ljmp $0, $begin
begin:
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7c00, %sp
	cld
	sti
	movb %dl, drive
	movb $'B', %al
	call say
	xorl %ebx, %ebx
next:
	movw $0x8000, %di
	movl %ebx, %eax
	movw $128, %cx
	rep stosl
	movw $0x8000, where
	movl $FIRST, %eax
	addl %ebx, %eax
	movl %eax, sector
	movb $0x43, %ah
	call disk
	movw $0x8200, where
	movb $0x42, %ah
	call disk
	movw $0x8000, %si
	movw $0x8200, %di
	movw $128, %cx
	repe cmpsl
	movb $'C', %ah
	jne error
	movb $'w', %al
	call say
	incl %ebx
	testb $3, %bl
	jnz 2f
	movb 0x46c, %al
1:	cmpb 0x46c, %al
	je 1b
2:	cmpl $COUNT, %ebx
	jb next
	movb $'D', %al
	call say
off:	hlt
	jmp off
disk:
	xorb %al, %al
	movb drive, %dl
	movw $packet, %si
	pushl %ebx
	int $0x13
	popl %ebx
	jc error
	ret
error:
	pushw %ax
	movb $'E', %al
	call say
	popw %ax
	movb %ah, %al
	call say
	jmp off
say:
	pushw %ax
	movw $0x3fd, %dx
4:	inb %dx, %al
	testb $0x20, %al
	jz 4b
	popw %ax
	movw $0x3f8, %dx
	outb %al, %dx
	ret
	.balign 4
packet:	.byte 16, 0
	.word 1
where:	.word 0, 0
sector:	.long 0, 0
drive:	.byte 0
	.org 510
	.word 0xaa55
