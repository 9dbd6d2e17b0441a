// The clock hook for arm64. generate.sh makes arm64.bin of it. See amd64.S: the same, in the
// registers that the AAPCS64 lets a function change.
	.text
blob:	.ascii "CAPCLK01"
idx:	.word 0
	.word 0
slots:	.rept 2			// per slot: REAL{base_real,base_fake,mult} MONO{...}; mult is 32.32
	.quad 0, 0, 0x100000000, 0, 0, 0x100000000
	.endr
orig:	.rept 8			// displaced instruction(s) + b back, or mov x8,#113; svc #0; ret
	nop
	.endr
hook:	stp	x29, x30, [sp, #-48]!	// int clock_gettime(id, ts)
	mov	x29, sp
	stp	x0, x1, [sp, #16]
0:	adr	x2, idx
	ldar	w3, [x2]
	str	w3, [sp, #32]
	bl	orig
	mov	w4, w0
	ldp	x0, x1, [sp, #16]
	ldr	w3, [sp, #32]
	adr	x2, idx
	ldar	w5, [x2]
	cmp	w3, w5
	b.ne	0b
late:				// from here to the end of hook a slot is in use
	ldp	x29, x30, [sp], #48
	cbnz	w4, 8f
	cmp	w0, #11
	b.hi	7f
	mov	w6, #1
	lsl	w6, w6, w0
	mov	w7, #0x821		// REALTIME, REALTIME_COARSE, TAI
	mov	x8, #0
	tst	w6, w7
	b.ne	1f
	mov	w7, #0xd2		// MONOTONIC, RAW, COARSE, BOOTTIME
	mov	x8, #24
	tst	w6, w7
	b.eq	7f
1:	and	w3, w3, #1
	mov	w5, #48
	umull	x3, w3, w5
	adr	x9, slots
	add	x9, x9, x3
	add	x9, x9, x8
	ldp	x10, x11, [x9]		// base_real, base_fake
	ldr	x12, [x9, #16]		// mult
	ldp	x13, x14, [x1]
	ldr	x15, =1000000000
	madd	x13, x13, x15, x14
	sub	x13, x13, x10
	mul	x14, x13, x12
	smulh	x16, x13, x12		// mult < 2^63
	extr	x13, x16, x14, #32
	add	x13, x13, x11
	sdiv	x14, x13, x15
	msub	x16, x14, x15, x13
	cmp	x16, #0
	b.ge	2f
	add	x16, x16, x15
	sub	x14, x14, #1
2:	stp	x14, x16, [x1]
7:	mov	w0, #0
	ret
8:	mov	w0, w4
	ret
end:
	.balign 16
gtod:	stp	x29, x30, [sp, #-48]!	// gettimeofday(tv, tz)
	mov	x29, sp
	stp	x0, x1, [sp, #16]
	mov	w0, #0
	add	x1, sp, #32
	bl	hook
	ldp	x0, x1, [sp, #16]
	ldp	x2, x3, [sp, #32]
	ldp	x29, x30, [sp], #48
	cbz	x0, 1f
	mov	x4, #1000
	udiv	x3, x3, x4
	stp	x2, x3, [x0]
1:	cbz	x1, 2f
	str	xzr, [x1]
2:	mov	w0, #0
	ret
	.balign 8
	.ltorg
	.balign 16
tab:	.word orig-blob, hook-blob, gtod-blob, 0, late-blob, end-blob	// last 24 bytes: offsets
