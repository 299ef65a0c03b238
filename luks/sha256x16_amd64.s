//go:build !purego

#include "textflag.h"

// FIPS 180-4, section 4.2.2, two to a line, the first in the lower half.
DATA roundConstants<>+0(SB)/8, $0x71374491428a2f98
DATA roundConstants<>+8(SB)/8, $0xe9b5dba5b5c0fbcf
DATA roundConstants<>+16(SB)/8, $0x59f111f13956c25b
DATA roundConstants<>+24(SB)/8, $0xab1c5ed5923f82a4
DATA roundConstants<>+32(SB)/8, $0x12835b01d807aa98
DATA roundConstants<>+40(SB)/8, $0x550c7dc3243185be
DATA roundConstants<>+48(SB)/8, $0x80deb1fe72be5d74
DATA roundConstants<>+56(SB)/8, $0xc19bf1749bdc06a7
DATA roundConstants<>+64(SB)/8, $0xefbe4786e49b69c1
DATA roundConstants<>+72(SB)/8, $0x240ca1cc0fc19dc6
DATA roundConstants<>+80(SB)/8, $0x4a7484aa2de92c6f
DATA roundConstants<>+88(SB)/8, $0x76f988da5cb0a9dc
DATA roundConstants<>+96(SB)/8, $0xa831c66d983e5152
DATA roundConstants<>+104(SB)/8, $0xbf597fc7b00327c8
DATA roundConstants<>+112(SB)/8, $0xd5a79147c6e00bf3
DATA roundConstants<>+120(SB)/8, $0x1429296706ca6351
DATA roundConstants<>+128(SB)/8, $0x2e1b213827b70a85
DATA roundConstants<>+136(SB)/8, $0x53380d134d2c6dfc
DATA roundConstants<>+144(SB)/8, $0x766a0abb650a7354
DATA roundConstants<>+152(SB)/8, $0x92722c8581c2c92e
DATA roundConstants<>+160(SB)/8, $0xa81a664ba2bfe8a1
DATA roundConstants<>+168(SB)/8, $0xc76c51a3c24b8b70
DATA roundConstants<>+176(SB)/8, $0xd6990624d192e819
DATA roundConstants<>+184(SB)/8, $0x106aa070f40e3585
DATA roundConstants<>+192(SB)/8, $0x1e376c0819a4c116
DATA roundConstants<>+200(SB)/8, $0x34b0bcb52748774c
DATA roundConstants<>+208(SB)/8, $0x4ed8aa4a391c0cb3
DATA roundConstants<>+216(SB)/8, $0x682e6ff35b9cca4f
DATA roundConstants<>+224(SB)/8, $0x78a5636f748f82ee
DATA roundConstants<>+232(SB)/8, $0x8cc7020884c87814
DATA roundConstants<>+240(SB)/8, $0xa4506ceb90befffa
DATA roundConstants<>+248(SB)/8, $0xc67178f2bef9a3f7
GLOBL roundConstants<>(SB), RODATA|NOPTR, $256

// The bytes of each 32-bit word the other way round.
DATA bigEndian<>+0(SB)/8, $0x0405060700010203
DATA bigEndian<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL bigEndian<>(SB), RODATA|NOPTR, $16

// Each register holds the same word of 16 messages, one in each 32-bit lane:
// a to h in Z0 to Z7, the last 16 words of the schedule in Z16 to Z31.

// ROUND is FIPS 180-4, section 6.2.2, step 3: the new a comes to be in h, the
// new e in d, so that the next round takes the registers in another order
// instead of moving them. VPTERNLOGD with 0x96 is the exclusive or of three,
// with 0xCA Ch, with 0xE8 Maj.
#define ROUND(a, b, c, d, e, f, g, h, w, k) \
	VPADDD.BCST k(R10), w, Z8         \
	VPADDD      Z8, h, h              \
	VPRORD      $6, e, Z9             \
	VPRORD      $11, e, Z10           \
	VPRORD      $25, e, Z11           \
	VPTERNLOGD  $0x96, Z10, Z11, Z9   \
	VMOVDQA32   e, Z12                \
	VPTERNLOGD  $0xCA, g, f, Z12      \
	VPADDD      Z9, h, h              \
	VPADDD      Z12, h, h             \
	VPADDD      h, d, d               \
	VPRORD      $2, a, Z9             \
	VPRORD      $13, a, Z10           \
	VPRORD      $22, a, Z11           \
	VPTERNLOGD  $0x96, Z10, Z11, Z9   \
	VMOVDQA32   a, Z12                \
	VPTERNLOGD  $0xE8, c, b, Z12      \
	VPADDD      Z9, h, h              \
	VPADDD      Z12, h, h

// EXPAND makes word t+16 of the schedule in place of word t (step 1); the
// others are words t+1, t+9 and t+14.
#define EXPAND(w, w1, w9, w14) \
	VPRORD     $7, w1, Z8          \
	VPRORD     $18, w1, Z9         \
	VPSRLD     $3, w1, Z10         \
	VPTERNLOGD $0x96, Z9, Z10, Z8  \
	VPRORD     $17, w14, Z11       \
	VPRORD     $19, w14, Z12       \
	VPSRLD     $10, w14, Z13       \
	VPTERNLOGD $0x96, Z12, Z13, Z11 \
	VPADDD     Z8, w, w            \
	VPADDD     w9, w, w            \
	VPADDD     Z11, w, w

// WORDS4 and LANES4 turn a square of 16 by 16 words, 4 by 4 at a time: first
// within 128 bits, then whole 128 bits.
#define WORDS4(a, b, c, d) \
	VPUNPCKLDQ  b, a, Z8    \
	VPUNPCKHDQ  b, a, Z9    \
	VPUNPCKLDQ  d, c, Z10   \
	VPUNPCKHDQ  d, c, Z11   \
	VPUNPCKLQDQ Z10, Z8, a  \
	VPUNPCKHQDQ Z10, Z8, b  \
	VPUNPCKLQDQ Z11, Z9, c  \
	VPUNPCKHQDQ Z11, Z9, d

#define LANES4(a, b, c, d) \
	VSHUFI32X4 $0x44, b, a, Z8    \
	VSHUFI32X4 $0xEE, b, a, Z9    \
	VSHUFI32X4 $0x44, d, c, Z10   \
	VSHUFI32X4 $0xEE, d, c, Z11   \
	VSHUFI32X4 $0x88, Z10, Z8, a  \
	VSHUFI32X4 $0xDD, Z10, Z8, b  \
	VSHUFI32X4 $0x88, Z11, Z9, c  \
	VSHUFI32X4 $0xDD, Z11, Z9, d

#define STEP(offset, z) \
	VPADDD    offset(AX), z, z  \
	VMOVDQU32 z, offset(AX)

// func sha256x16(state *lanes, p *byte, stride, blocks int)
TEXT ·sha256x16(SB), NOSPLIT, $0-32
	MOVQ state+0(FP), AX
	MOVQ p+8(FP), SI
	MOVQ stride+16(FP), R8
	MOVQ blocks+24(FP), BX
	LEAQ (R8)(R8*2), R9
	LEAQ (SI)(R8*4), R11
	LEAQ (SI)(R8*8), R12
	LEAQ (R11)(R8*8), R13

	VBROADCASTI32X4 bigEndian<>(SB), Z15

	VMOVDQU32 (AX), Z0
	VMOVDQU32 64(AX), Z1
	VMOVDQU32 128(AX), Z2
	VMOVDQU32 192(AX), Z3
	VMOVDQU32 256(AX), Z4
	VMOVDQU32 320(AX), Z5
	VMOVDQU32 384(AX), Z6
	VMOVDQU32 448(AX), Z7

block:
	// One message to a register, 64 bytes of each.
	VMOVDQU32 (SI), Z16
	VMOVDQU32 (SI)(R8*1), Z17
	VMOVDQU32 (SI)(R8*2), Z18
	VMOVDQU32 (SI)(R9*1), Z19
	VMOVDQU32 (R11), Z20
	VMOVDQU32 (R11)(R8*1), Z21
	VMOVDQU32 (R11)(R8*2), Z22
	VMOVDQU32 (R11)(R9*1), Z23
	VMOVDQU32 (R12), Z24
	VMOVDQU32 (R12)(R8*1), Z25
	VMOVDQU32 (R12)(R8*2), Z26
	VMOVDQU32 (R12)(R9*1), Z27
	VMOVDQU32 (R13), Z28
	VMOVDQU32 (R13)(R8*1), Z29
	VMOVDQU32 (R13)(R8*2), Z30
	VMOVDQU32 (R13)(R9*1), Z31
	VPSHUFB Z15, Z16, Z16
	VPSHUFB Z15, Z17, Z17
	VPSHUFB Z15, Z18, Z18
	VPSHUFB Z15, Z19, Z19
	VPSHUFB Z15, Z20, Z20
	VPSHUFB Z15, Z21, Z21
	VPSHUFB Z15, Z22, Z22
	VPSHUFB Z15, Z23, Z23
	VPSHUFB Z15, Z24, Z24
	VPSHUFB Z15, Z25, Z25
	VPSHUFB Z15, Z26, Z26
	VPSHUFB Z15, Z27, Z27
	VPSHUFB Z15, Z28, Z28
	VPSHUFB Z15, Z29, Z29
	VPSHUFB Z15, Z30, Z30
	VPSHUFB Z15, Z31, Z31
	WORDS4(Z16, Z17, Z18, Z19)
	WORDS4(Z20, Z21, Z22, Z23)
	WORDS4(Z24, Z25, Z26, Z27)
	WORDS4(Z28, Z29, Z30, Z31)
	LANES4(Z16, Z20, Z24, Z28)
	LANES4(Z17, Z21, Z25, Z29)
	LANES4(Z18, Z22, Z26, Z30)
	LANES4(Z19, Z23, Z27, Z31)

	LEAQ roundConstants<>(SB), R10
	MOVQ $3, CX

sixteen:
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 0)
	EXPAND(Z16, Z17, Z25, Z30)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 4)
	EXPAND(Z17, Z18, Z26, Z31)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 8)
	EXPAND(Z18, Z19, Z27, Z16)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 12)
	EXPAND(Z19, Z20, Z28, Z17)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 16)
	EXPAND(Z20, Z21, Z29, Z18)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 20)
	EXPAND(Z21, Z22, Z30, Z19)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 24)
	EXPAND(Z22, Z23, Z31, Z20)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 28)
	EXPAND(Z23, Z24, Z16, Z21)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z24, 32)
	EXPAND(Z24, Z25, Z17, Z22)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z25, 36)
	EXPAND(Z25, Z26, Z18, Z23)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z26, 40)
	EXPAND(Z26, Z27, Z19, Z24)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z27, 44)
	EXPAND(Z27, Z28, Z20, Z25)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z28, 48)
	EXPAND(Z28, Z29, Z21, Z26)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z29, 52)
	EXPAND(Z29, Z30, Z22, Z27)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z30, 56)
	EXPAND(Z30, Z31, Z23, Z28)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z31, 60)
	EXPAND(Z31, Z16, Z24, Z29)
	ADDQ $64, R10
	DECQ CX
	JNZ  sixteen

	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 0)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 4)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 8)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 12)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 16)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 20)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 24)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 28)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z24, 32)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z25, 36)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z26, 40)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z27, 44)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z28, 48)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z29, 52)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z30, 56)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z31, 60)

	STEP(0, Z0)
	STEP(64, Z1)
	STEP(128, Z2)
	STEP(192, Z3)
	STEP(256, Z4)
	STEP(320, Z5)
	STEP(384, Z6)
	STEP(448, Z7)

	ADDQ $64, SI
	ADDQ $64, R11
	ADDQ $64, R12
	ADDQ $64, R13
	DECQ BX
	JNZ  block

	VZEROUPPER
	RET
