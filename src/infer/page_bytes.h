#pragma once
/// Bytes in pages of their own. Blocks of megabytes that come and go leave holes between what else lies on a heap, so
/// that it grows by a part of them (measured: 65 MB of holes beside 256 MB); pages go back to the system at once.

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

namespace tailor {

/// Of a fixed size, zeros at first. Threads: as an array.
class PageBytes {
 public:
  /// Throws std::bad_alloc.
  explicit PageBytes(std::size_t size) : size_(size) {
    if (size == 0) return;
    void* const pages = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<std::uint8_t*>(pages);
  }
  PageBytes(const PageBytes&) = delete;
  PageBytes& operator=(const PageBytes&) = delete;
  ~PageBytes() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }

  std::uint8_t* data() { return data_; }  // null: there are none
  const std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::uint8_t* data_ = nullptr;
  std::size_t size_;
};

}  // namespace tailor
