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

// The CPU's instructions want a, b, e, f in one register and c, d, g, h in
// another, a and c the highest.
#define LOAD(h, abef, cdgh) \
	MOVOU  (h), X13           \
	MOVOU  16(h), X14         \
	PSHUFD $0xB1, X13, X13    \
	PSHUFD $0x1B, X14, X14    \
	MOVOU  X13, abef          \
	PALIGNR $8, X14, abef     \
	MOVOU  X14, cdgh          \
	PBLENDW $0xF0, X13, cdgh

#define SAVE(h, abef, cdgh) \
	PSHUFD $0x1B, abef, X13   \
	PSHUFD $0xB1, cdgh, X14   \
	MOVOU  X13, X0            \
	PBLENDW $0xF0, X14, X0    \
	PALIGNR $8, X13, X14      \
	MOVOU  X0, (h)            \
	MOVOU  X14, 16(h)

// FOUR is four rounds.
#define FOUR(k, words, abef, cdgh) \
	MOVOU       k(AX), X0       \
	PADDD       words, X0       \
	SHA256RNDS2 X0, abef, cdgh  \
	PSHUFD      $0x0E, X0, X0   \
	SHA256RNDS2 X0, cdgh, abef

// NEXT finishes the four words that follow cur; SHA256MSG1 has begun them.
#define NEXT(next, cur, prev) \
	MOVOU      cur, X13       \
	PALIGNR    $4, prev, X13  \
	PADDD      X13, next      \
	SHA256MSG2 cur, next

// func one(h *[8]uint32, p *byte, blocks int)
TEXT ·one(SB), NOSPLIT, $32-24
	MOVQ h+0(FP), R8
	MOVQ p+8(FP), SI
	MOVQ blocks+16(FP), CX
	LEAQ  roundConstants<>(SB), AX
	MOVOU bigEndian<>(SB), X15
	LOAD(R8, X1, X2)

block:
	MOVOU X1, 0(SP)
	MOVOU X2, 16(SP)

	MOVOU  0(SI), X3
	PSHUFB X15, X3
	FOUR(0, X3, X1, X2)
	MOVOU  16(SI), X4
	PSHUFB X15, X4
	FOUR(16, X4, X1, X2)
	SHA256MSG1 X4, X3
	MOVOU  32(SI), X5
	PSHUFB X15, X5
	FOUR(32, X5, X1, X2)
	SHA256MSG1 X5, X4
	MOVOU  48(SI), X6
	PSHUFB X15, X6
	FOUR(48, X6, X1, X2)
	NEXT(X3, X6, X5)
	SHA256MSG1 X6, X5
	FOUR(64, X3, X1, X2)
	NEXT(X4, X3, X6)
	SHA256MSG1 X3, X6
	FOUR(80, X4, X1, X2)
	NEXT(X5, X4, X3)
	SHA256MSG1 X4, X3
	FOUR(96, X5, X1, X2)
	NEXT(X6, X5, X4)
	SHA256MSG1 X5, X4
	FOUR(112, X6, X1, X2)
	NEXT(X3, X6, X5)
	SHA256MSG1 X6, X5
	FOUR(128, X3, X1, X2)
	NEXT(X4, X3, X6)
	SHA256MSG1 X3, X6
	FOUR(144, X4, X1, X2)
	NEXT(X5, X4, X3)
	SHA256MSG1 X4, X3
	FOUR(160, X5, X1, X2)
	NEXT(X6, X5, X4)
	SHA256MSG1 X5, X4
	FOUR(176, X6, X1, X2)
	NEXT(X3, X6, X5)
	SHA256MSG1 X6, X5
	FOUR(192, X3, X1, X2)
	NEXT(X4, X3, X6)
	SHA256MSG1 X3, X6
	FOUR(208, X4, X1, X2)
	NEXT(X5, X4, X3)
	FOUR(224, X5, X1, X2)
	NEXT(X6, X5, X4)
	FOUR(240, X6, X1, X2)

	MOVOU 0(SP), X13
	PADDD X13, X1
	MOVOU 16(SP), X13
	PADDD X13, X2
	ADDQ  $64, SI
	DECQ  CX
	JNZ   block

	SAVE(R8, X1, X2)
	RET

// Two at once: each round waits for the one before, and meanwhile the other
// message has its turn.
//
// func two(h1, h2 *[8]uint32, p1, p2 *byte, blocks int)
TEXT ·two(SB), NOSPLIT, $64-40
	MOVQ h1+0(FP), R8
	MOVQ h2+8(FP), R9
	MOVQ p1+16(FP), SI
	MOVQ p2+24(FP), DI
	MOVQ blocks+32(FP), CX
	LEAQ  roundConstants<>(SB), AX
	MOVOU bigEndian<>(SB), X15
	LOAD(R8, X1, X2)
	LOAD(R9, X7, X8)

block:
	MOVOU X1, 0(SP)
	MOVOU X2, 16(SP)
	MOVOU X7, 32(SP)
	MOVOU X8, 48(SP)

	MOVOU  0(SI), X3
	PSHUFB X15, X3
	MOVOU  0(DI), X9
	PSHUFB X15, X9
	FOUR(0, X3, X1, X2)
	FOUR(0, X9, X7, X8)
	MOVOU  16(SI), X4
	PSHUFB X15, X4
	MOVOU  16(DI), X10
	PSHUFB X15, X10
	FOUR(16, X4, X1, X2)
	FOUR(16, X10, X7, X8)
	SHA256MSG1 X4, X3
	SHA256MSG1 X10, X9
	MOVOU  32(SI), X5
	PSHUFB X15, X5
	MOVOU  32(DI), X11
	PSHUFB X15, X11
	FOUR(32, X5, X1, X2)
	FOUR(32, X11, X7, X8)
	SHA256MSG1 X5, X4
	SHA256MSG1 X11, X10
	MOVOU  48(SI), X6
	PSHUFB X15, X6
	MOVOU  48(DI), X12
	PSHUFB X15, X12
	FOUR(48, X6, X1, X2)
	FOUR(48, X12, X7, X8)
	NEXT(X3, X6, X5)
	NEXT(X9, X12, X11)
	SHA256MSG1 X6, X5
	SHA256MSG1 X12, X11
	FOUR(64, X3, X1, X2)
	FOUR(64, X9, X7, X8)
	NEXT(X4, X3, X6)
	NEXT(X10, X9, X12)
	SHA256MSG1 X3, X6
	SHA256MSG1 X9, X12
	FOUR(80, X4, X1, X2)
	FOUR(80, X10, X7, X8)
	NEXT(X5, X4, X3)
	NEXT(X11, X10, X9)
	SHA256MSG1 X4, X3
	SHA256MSG1 X10, X9
	FOUR(96, X5, X1, X2)
	FOUR(96, X11, X7, X8)
	NEXT(X6, X5, X4)
	NEXT(X12, X11, X10)
	SHA256MSG1 X5, X4
	SHA256MSG1 X11, X10
	FOUR(112, X6, X1, X2)
	FOUR(112, X12, X7, X8)
	NEXT(X3, X6, X5)
	NEXT(X9, X12, X11)
	SHA256MSG1 X6, X5
	SHA256MSG1 X12, X11
	FOUR(128, X3, X1, X2)
	FOUR(128, X9, X7, X8)
	NEXT(X4, X3, X6)
	NEXT(X10, X9, X12)
	SHA256MSG1 X3, X6
	SHA256MSG1 X9, X12
	FOUR(144, X4, X1, X2)
	FOUR(144, X10, X7, X8)
	NEXT(X5, X4, X3)
	NEXT(X11, X10, X9)
	SHA256MSG1 X4, X3
	SHA256MSG1 X10, X9
	FOUR(160, X5, X1, X2)
	FOUR(160, X11, X7, X8)
	NEXT(X6, X5, X4)
	NEXT(X12, X11, X10)
	SHA256MSG1 X5, X4
	SHA256MSG1 X11, X10
	FOUR(176, X6, X1, X2)
	FOUR(176, X12, X7, X8)
	NEXT(X3, X6, X5)
	NEXT(X9, X12, X11)
	SHA256MSG1 X6, X5
	SHA256MSG1 X12, X11
	FOUR(192, X3, X1, X2)
	FOUR(192, X9, X7, X8)
	NEXT(X4, X3, X6)
	NEXT(X10, X9, X12)
	SHA256MSG1 X3, X6
	SHA256MSG1 X9, X12
	FOUR(208, X4, X1, X2)
	FOUR(208, X10, X7, X8)
	NEXT(X5, X4, X3)
	NEXT(X11, X10, X9)
	FOUR(224, X5, X1, X2)
	FOUR(224, X11, X7, X8)
	NEXT(X6, X5, X4)
	NEXT(X12, X11, X10)
	FOUR(240, X6, X1, X2)
	FOUR(240, X12, X7, X8)

	MOVOU 0(SP), X13
	PADDD X13, X1
	MOVOU 16(SP), X13
	PADDD X13, X2
	MOVOU 32(SP), X13
	PADDD X13, X7
	MOVOU 48(SP), X13
	PADDD X13, X8
	ADDQ  $64, SI
	ADDQ  $64, DI
	DECQ  CX
	JNZ   block

	SAVE(R8, X1, X2)
	SAVE(R9, X7, X8)
	RET
// func hasSHA() bool
// CPUID leaf 7, EBX bit 29.
TEXT ·hasSHA(SB), NOSPLIT, $0-1
	XORL  AX, AX
	XORL  CX, CX
	CPUID
	CMPL  AX, $7
	JLT   no
	MOVL  $7, AX
	XORL  CX, CX
	CPUID
	SHRL  $29, BX
	ANDL  $1, BX
	MOVB  BX, ret+0(FP)
	RET

no:
	MOVB $0, ret+0(FP)
	RET
