#pragma once
/// The arithmetic of infer/attention.h, compiled once per instruction set; attention.cpp chooses. Internal.

#include <cstddef>
#include <cstdint>

namespace tailor {

struct AttentionCall;

namespace attention {

inline constexpr int kBlock = 64;     // cells at once
inline constexpr int kMostRows = 64;  // queries computed together: tokens times the heads that share a head of keys
inline constexpr int kMostWidth = 256;
inline constexpr int kOwnRows = 4;  // queries of a token at once, where it is computed alone

/// A cell that one token alone attends to, and what the mask adds.
struct OwnCell {
  std::int32_t cell;
  float bias;
};

/// The tokens of a tile and one head of keys and values. Row i * group + g: token i, query head g of the group.
struct Tile {
  int tokens, group;  // tokens * group <= kMostRows
  int key_width, value_width;
  float scale, softcap;
  const float* const* queries;  // [row]
  float* const* out;            // [row]
  const char *keys, *values;    // of the head
  std::size_t key_cell, value_cell;
  const std::int32_t* common;  // cells that all tokens attend to
  int common_count;
  const OwnCell* const* own;  // [token]
  const int* own_count;       // [token]
  float* scores;  // null: own cells in blocks, of 32-bit sums; else in any order: room for kOwnRows times as many
                  // floats as a token has own cells, rounded up to 16
};

struct Kernel {
  std::size_t scratch_floats;  // aligned to 64 bytes
  void (*tile)(const Tile& tile, float* scratch);
  /// Bit per cell: whether the mask is 0 there, and whether it is more than -inf. Returns whether it is ever both
  /// finite and not 0. `cells` is a multiple of 64.
  bool (*mask_bits)(const std::uint16_t* mask, int cells, std::uint64_t* zero, std::uint64_t* live);
};

const Kernel& kernel_avx512();
const Kernel& kernel_avx2();
const Kernel& kernel_portable();

/// tailor::attend() with a kernel of the caller's choice.
void attend(const AttentionCall& call, int threads, const Kernel& kernel);

}  // namespace attention
}  // namespace tailor
