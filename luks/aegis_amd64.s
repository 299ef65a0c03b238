//go:build !purego

#include "textflag.h"

// The state is in X0 to X4. Each word becomes AESENC of the one before it.

#define LOAD \
	MOVQ    state+0(FP), AX \
	MOVQ    p+8(FP), DI     \
	MOVQ    blocks+16(FP), CX \
	VMOVDQU (AX), X0        \
	VMOVDQU 16(AX), X1      \
	VMOVDQU 32(AX), X2      \
	VMOVDQU 48(AX), X3      \
	VMOVDQU 64(AX), X4

#define STORE \
	VMOVDQU X0, (AX)   \
	VMOVDQU X1, 16(AX) \
	VMOVDQU X2, 32(AX) \
	VMOVDQU X3, 48(AX) \
	VMOVDQU X4, 64(AX)

// UPDATE takes the block of plaintext in X5.
#define UPDATE \
	VPXOR   X5, X0, X5 \
	VMOVDQA X4, X6     \
	VAESENC X4, X3, X4 \
	VAESENC X3, X2, X3 \
	VAESENC X2, X1, X2 \
	VAESENC X1, X0, X1 \
	VAESENC X5, X6, X0

// KEYSTREAM leaves S1 ^ S4 ^ (S2 & S3) in X7.
#define KEYSTREAM \
	VPAND X2, X3, X7 \
	VPXOR X1, X7, X7 \
	VPXOR X4, X7, X7

// func aegisAbsorb(state *aegisState, p *byte, blocks int)
TEXT ·aegisAbsorb(SB), NOSPLIT, $0-24
	LOAD

absorb:
	VMOVDQU (DI), X5
	UPDATE
	ADDQ    $16, DI
	DECQ    CX
	JNZ     absorb
	STORE
	RET

// func aegisEncrypt(state *aegisState, p *byte, blocks int)
TEXT ·aegisEncrypt(SB), NOSPLIT, $0-24
	LOAD

encrypt:
	VMOVDQU (DI), X5
	KEYSTREAM
	VPXOR   X5, X7, X7
	VMOVDQU X7, (DI)
	UPDATE
	ADDQ    $16, DI
	DECQ    CX
	JNZ     encrypt
	STORE
	RET

// func aegisDecrypt(state *aegisState, p *byte, blocks int)
TEXT ·aegisDecrypt(SB), NOSPLIT, $0-24
	LOAD

decrypt:
	KEYSTREAM
	VPXOR   (DI), X7, X5
	VMOVDQU X5, (DI)
	UPDATE
	ADDQ    $16, DI
	DECQ    CX
	JNZ     decrypt
	STORE
	RET
