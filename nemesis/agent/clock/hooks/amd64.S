# The clock hook for x86-64. generate.sh makes amd64.bin of it.
#
# It is placed behind the code of the vDSO; the entries of the vDSO jump to hook, gtod and
# timef. No register that the System V ABI preserves is changed, and at each call the stack
# is aligned as the ABI asks.
.intel_syntax noprefix
.text
blob:	.ascii "CAPCLK01"
idx:	.long 0
	.long 0
slots:	.rept 2			# per slot: REAL{base_real,base_fake,mult} MONO{...}; mult is 32.32 fixed point
	.quad 0, 0, 0x100000000, 0, 0, 0x100000000
	.endr
orig:	.fill 32, 1, 0x90	# displaced prologue + jmp back, or "mov eax,228; syscall; ret"
hook:	push	rdi		# 0x90; int clock_gettime(id, ts)
	push	rsi
0:	mov	ecx, [rip+idx]	# version before the clock is read
	push	rcx
	call	orig
	pop	r10
	mov	rsi, [rsp]
	mov	rdi, [rsp+8]
	cmp	r10d, [rip+idx]	# parameters changed meanwhile: read the clock again
	jne	0b
late:				# from here to the end of hook a slot is in use
	pop	rsi
	pop	rdi
	test	eax, eax
	jnz	9f
	mov	ecx, edi
	cmp	ecx, 11
	ja	9f
	xor	r8d, r8d
	mov	edx, 0x821	# 0 REALTIME, 5 REALTIME_COARSE, 11 TAI
	bt	edx, ecx
	jc	1f
	mov	edx, 0xd2	# 1 MONOTONIC, 4 RAW, 6 COARSE, 7 BOOTTIME
	bt	edx, ecx
	jnc	9f
	mov	r8d, 24
1:	mov	ecx, r10d
	and	ecx, 1
	imul	ecx, ecx, 48
	lea	r9, [rip+slots]
	add	r9, rcx
	add	r9, r8
	imul	rax, qword ptr [rsi], 1000000000
	add	rax, [rsi+8]
	sub	rax, [r9]
	imul	qword ptr [r9+16]
	shrd	rax, rdx, 32
	add	rax, [r9+8]
	cqo
	mov	ecx, 1000000000
	idiv	rcx
	test	rdx, rdx
	jns	2f
	add	rdx, rcx
	dec	rax
2:	mov	[rsi], rax
	mov	[rsi+8], rdx
	xor	eax, eax
9:	ret
end:
	.balign 16
gtod:	push	rdi		# gettimeofday(tv, tz)
	push	rsi
	sub	rsp, 24
	xor	edi, edi
	mov	rsi, rsp
	call	hook
	mov	r8, [rsp]
	mov	rax, [rsp+8]
	add	rsp, 24
	pop	rsi
	pop	rdi
	test	rdi, rdi
	jz	1f
	mov	[rdi], r8
	xor	edx, edx
	mov	ecx, 1000
	div	rcx
	mov	[rdi+8], rax
1:	test	rsi, rsi
	jz	2f
	mov	qword ptr [rsi], 0
2:	xor	eax, eax
	ret
	.balign 16
timef:	push	rdi		# time(t)
	sub	rsp, 16
	xor	edi, edi
	mov	rsi, rsp
	call	hook
	mov	rax, [rsp]
	add	rsp, 16
	pop	rdi
	test	rdi, rdi
	jz	1f
	mov	[rdi], rax
1:	ret
	.balign 16
tab:	.long orig-blob, hook-blob, gtod-blob, timef-blob, late-blob, end-blob	# last 24 bytes: offsets
