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
