#include "infer/packed_weights.h"

#include <ggml-backend.h>
#include <ggml.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mutex>
#include <new>
#include <optional>
#include <shared_mutex>
#include <unordered_map>

namespace tailor {
namespace {

std::optional<PackedFormat> format_of(const ggml_tensor* weight) {
  switch (weight->type) {
    case GGML_TYPE_Q8_0:
      return PackedFormat::kQ8_0;
    case GGML_TYPE_Q4_0:
      return PackedFormat::kQ4_0;
    case GGML_TYPE_Q4_1:
      return PackedFormat::kQ4_1;
    default:
      return std::nullopt;
  }
}

struct Owned {
  PackedMatrix matrix;
  std::byte* memory;
  explicit Owned(std::size_t bytes) : memory(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{64}))) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() { ::operator delete (memory, std::align_val_t{64}); }
};

struct Copies {
  std::shared_mutex mutex;
  std::unordered_map<const void*, std::shared_ptr<const PackedMatrix>> of;  // by the address of the weight's data
};
Copies& copies() {
  static Copies all;
  return all;
}

/// Whole pages of it. Asks only: nothing is lost where they are not those of a file.
void give_back_pages(void* data, std::size_t bytes) {
#ifdef MADV_PAGEOUT
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(data) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / page * page;
  if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_PAGEOUT);
#else
  static_cast<void>(data);
  static_cast<void>(bytes);
#endif
}

}  // namespace

bool packable(const ggml_tensor* weight) {
  return format_of(weight) && packed_shape(weight->ne[1], weight->ne[0]) && weight->ne[2] == 1 && weight->ne[3] == 1 &&
         ggml_is_contiguous(weight) && weight->buffer != nullptr && ggml_backend_buffer_is_host(weight->buffer) &&
         ggml_backend_buffer_get_usage(weight->buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
}

std::shared_ptr<const PackedMatrix> packed_weight(const ggml_tensor* weight) {
  Copies& all = copies();
  {
    const std::shared_lock lock(all.mutex);
    if (const auto found = all.of.find(weight->data); found != all.of.end()) return found->second;
  }
  const std::unique_lock lock(all.mutex);
  auto& place = all.of[weight->data];
  if (place) return place;
  const PackedFormat format = *format_of(weight);
  const auto owned = std::make_shared<Owned>(packed_bytes(format, weight->ne[1], weight->ne[0]));
  pack(format, weight->ne[1], weight->ne[0], static_cast<const std::byte*>(weight->data), owned->memory);
  owned->matrix = {format, weight->ne[1], weight->ne[0], owned->memory};
  give_back_pages(weight->data, ggml_nbytes(weight));
  place = std::shared_ptr<const PackedMatrix>(owned, &owned->matrix);
  return place;
}

void forget_packed_weights() {
  Copies& all = copies();
  const std::unique_lock lock(all.mutex);
  all.of.clear();
}

}  // namespace tailor
