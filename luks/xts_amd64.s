//go:build !purego

#include "textflag.h"

// func encryptBlocks(keys *uint32, rounds int, buf, tweaks *byte, blocks int)
// Eight blocks at a time keep the AES unit's pipeline full.
TEXT ·encryptBlocks(SB), NOSPLIT, $0-40
	MOVQ keys+0(FP), AX
	MOVQ rounds+8(FP), BX
	MOVQ buf+16(FP), DI
	MOVQ tweaks+24(FP), SI
	MOVQ blocks+32(FP), CX

eight:
	SUBQ    $8, CX
	JLT     done
	VMOVDQU (AX), X8
	VPXOR   (SI), X8, X0
	VPXOR   16(SI), X8, X1
	VPXOR   32(SI), X8, X2
	VPXOR   48(SI), X8, X3
	VPXOR   64(SI), X8, X4
	VPXOR   80(SI), X8, X5
	VPXOR   96(SI), X8, X6
	VPXOR   112(SI), X8, X7
	VPXOR   (DI), X0, X0
	VPXOR   16(DI), X1, X1
	VPXOR   32(DI), X2, X2
	VPXOR   48(DI), X3, X3
	VPXOR   64(DI), X4, X4
	VPXOR   80(DI), X5, X5
	VPXOR   96(DI), X6, X6
	VPXOR   112(DI), X7, X7
	LEAQ    16(AX), DX
	LEAQ    -1(BX), R8

round:
	VMOVDQU (DX), X8
	VAESENC X8, X0, X0
	VAESENC X8, X1, X1
	VAESENC X8, X2, X2
	VAESENC X8, X3, X3
	VAESENC X8, X4, X4
	VAESENC X8, X5, X5
	VAESENC X8, X6, X6
	VAESENC X8, X7, X7
	ADDQ    $16, DX
	DECQ    R8
	JNZ     round

	VMOVDQU     (DX), X8
	VAESENCLAST X8, X0, X0
	VAESENCLAST X8, X1, X1
	VAESENCLAST X8, X2, X2
	VAESENCLAST X8, X3, X3
	VAESENCLAST X8, X4, X4
	VAESENCLAST X8, X5, X5
	VAESENCLAST X8, X6, X6
	VAESENCLAST X8, X7, X7
	VPXOR       (SI), X0, X0
	VPXOR       16(SI), X1, X1
	VPXOR       32(SI), X2, X2
	VPXOR       48(SI), X3, X3
	VPXOR       64(SI), X4, X4
	VPXOR       80(SI), X5, X5
	VPXOR       96(SI), X6, X6
	VPXOR       112(SI), X7, X7
	VMOVDQU     X0, (DI)
	VMOVDQU     X1, 16(DI)
	VMOVDQU     X2, 32(DI)
	VMOVDQU     X3, 48(DI)
	VMOVDQU     X4, 64(DI)
	VMOVDQU     X5, 80(DI)
	VMOVDQU     X6, 96(DI)
	VMOVDQU     X7, 112(DI)
	ADDQ        $128, SI
	ADDQ        $128, DI
	JMP         eight

done:
	// Leave no key material in the registers.
	VPXOR X8, X8, X8
	RET

// func subWord(x uint32) uint32
// AESKEYGENASSIST substitutes without a table, hence without cache timing.
TEXT ·subWord(SB), NOSPLIT, $0-12
	MOVL             x+0(FP), AX
	VMOVD            AX, X0
	VPSHUFD          $0, X0, X0
	VAESKEYGENASSIST $0, X0, X1
	VMOVD            X1, AX
	MOVL             AX, ret+8(FP)
	VPXOR            X0, X0, X0
	VPXOR            X1, X1, X1
	RET

#define ROUND4(aes, key) \
	aes key, Z0, Z0   \
	aes key, Z1, Z1   \
	aes key, Z2, Z2   \
	aes key, Z3, Z3

#define TIMESX16(t) \
	VPSRLDQ    $14, t, Z8          \
	VPCLMULQDQ $0, Z15, Z8, Z8     \
	VPSLLDQ    $2, t, t            \
	VPXORD     Z8, t, t

// func encryptFrom(keys *uint32, buf, tweaks *byte, blocks int)
// AES-256, 16 blocks at a time, four to a register. tweaks are those of the
// first 16 blocks; the next come of multiplying by x^16 in GF(2^128): a shift
// by two bytes, and what falls out at the top comes back times x^7+x^2+x+1.
TEXT ·encryptFrom(SB), NOSPLIT, $0-32
	MOVQ keys+0(FP), AX
	MOVQ buf+8(FP), DI
	MOVQ tweaks+16(FP), SI
	MOVQ blocks+24(FP), CX

	VBROADCASTI32X4 0(AX), Z16
	VBROADCASTI32X4 16(AX), Z17
	VBROADCASTI32X4 32(AX), Z18
	VBROADCASTI32X4 48(AX), Z19
	VBROADCASTI32X4 64(AX), Z20
	VBROADCASTI32X4 80(AX), Z21
	VBROADCASTI32X4 96(AX), Z22
	VBROADCASTI32X4 112(AX), Z23
	VBROADCASTI32X4 128(AX), Z24
	VBROADCASTI32X4 144(AX), Z25
	VBROADCASTI32X4 160(AX), Z26
	VBROADCASTI32X4 176(AX), Z27
	VBROADCASTI32X4 192(AX), Z28
	VBROADCASTI32X4 208(AX), Z29
	VBROADCASTI32X4 224(AX), Z30

	MOVQ         $0x87, DX
	VPBROADCASTQ DX, Z15

	VMOVDQU32 0(SI), Z4
	VMOVDQU32 64(SI), Z5
	VMOVDQU32 128(SI), Z6
	VMOVDQU32 192(SI), Z7

sixteen:
	SUBQ   $16, CX
	JLT    wiped
	VPXORD Z16, Z4, Z0
	VPXORD Z16, Z5, Z1
	VPXORD Z16, Z6, Z2
	VPXORD Z16, Z7, Z3
	VPXORD 0(DI), Z0, Z0
	VPXORD 64(DI), Z1, Z1
	VPXORD 128(DI), Z2, Z2
	VPXORD 192(DI), Z3, Z3

	ROUND4(VAESENC, Z17)
	ROUND4(VAESENC, Z18)
	ROUND4(VAESENC, Z19)
	ROUND4(VAESENC, Z20)
	ROUND4(VAESENC, Z21)
	ROUND4(VAESENC, Z22)
	ROUND4(VAESENC, Z23)
	ROUND4(VAESENC, Z24)
	ROUND4(VAESENC, Z25)
	ROUND4(VAESENC, Z26)
	ROUND4(VAESENC, Z27)
	ROUND4(VAESENC, Z28)
	ROUND4(VAESENC, Z29)
	ROUND4(VAESENCLAST, Z30)

	VPXORD    Z4, Z0, Z0
	VMOVDQU32 Z0, 0(DI)
	VPXORD    Z5, Z1, Z1
	VMOVDQU32 Z1, 64(DI)
	VPXORD    Z6, Z2, Z2
	VMOVDQU32 Z2, 128(DI)
	VPXORD    Z7, Z3, Z3
	VMOVDQU32 Z3, 192(DI)

	TIMESX16(Z4)
	TIMESX16(Z5)
	TIMESX16(Z6)
	TIMESX16(Z7)
	ADDQ $256, DI
	JMP  sixteen

wiped:
	// Leave no key material in the registers.
	VPXORD Z16, Z16, Z16
	VPXORD Z17, Z17, Z17
	VPXORD Z18, Z18, Z18
	VPXORD Z19, Z19, Z19
	VPXORD Z20, Z20, Z20
	VPXORD Z21, Z21, Z21
	VPXORD Z22, Z22, Z22
	VPXORD Z23, Z23, Z23
	VPXORD Z24, Z24, Z24
	VPXORD Z25, Z25, Z25
	VPXORD Z26, Z26, Z26
	VPXORD Z27, Z27, Z27
	VPXORD Z28, Z28, Z28
	VPXORD Z29, Z29, Z29
	VPXORD Z30, Z30, Z30
	VZEROUPPER
	RET
