/* SPDX-License-Identifier: MIT */
/* The kernel's short names of integer types, for a source that takes them for granted. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;
