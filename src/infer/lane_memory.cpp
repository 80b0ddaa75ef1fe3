#include "infer/lane_memory.h"

#include <algorithm>
#include <new>
#include <utility>

namespace tailor {
namespace {

std::size_t rounded(std::size_t cells) {
  return (cells + 255) / 256 * 256;
}

/// Null: there is no memory for so many.
std::shared_ptr<PageBytes> bytes_if_there_are(std::size_t size) {
  try {
    return std::make_shared<PageBytes>(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace

LaneMemory::LaneMemory(std::shared_ptr<const LoadedModel> model, const LaneMemoryOptions& options)
    : model_(std::move(model)), options_(options), wanted_first_cells_(rounded(options.first_cells)) {
  set_max_cells(options.max_cells);
  // One more than callers see: save() copies into it.
  for (std::int32_t id = options_.sequences; id > 0; --id) free_ids_.push_back(id);
}

Result<LlamaContextPtr> LaneMemory::make(std::size_t cells) const {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<std::uint32_t>(cells);
  params.n_batch = params.n_ubatch = static_cast<std::uint32_t>(options_.batch);
  params.n_seq_max = static_cast<std::uint32_t>(options_.sequences) + 1;
  params.n_threads = params.n_threads_batch = 1;
  params.kv_unified = true;
  params.swa_full = true;  // beginnings are shared, which a window alone cannot give back
  params.type_k = params.type_v = options_.f32_cache ? GGML_TYPE_F32 : GGML_TYPE_F16;
  params.flash_attn_type = options_.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.no_perf = true;
  return model_->make_context(params);
}

Status LaneMemory::open() {
  if (context_) return {};
  TAILOR_TRY(context_, make(options_.first_cells));
  cells_ = options_.first_cells;
  set_adapter(std::exchange(adapter_, nullptr));
  return {};
}

void LaneMemory::set_max_cells(std::size_t cells) {
  options_.max_cells = cells / 256 * 256;
  options_.first_cells = std::min(wanted_first_cells_, options_.max_cells);
}

void LaneMemory::close() {
  context_.reset();
  cells_ = 0;
}

void LaneMemory::set_adapter(llama_adapter_lora* adapter) {
  if (adapter == adapter_) return;
  adapter_ = adapter;
  if (!context_) return;
  float scale = 1.0f;
  llama_set_adapters_lora(context_.get(), &adapter, adapter == nullptr ? 0 : 1, &scale);
  adapter_changed_ = true;
}

Status LaneMemory::decode(DecodeBatch& batch) {
  std::unique_lock lock(model_->adapter_list(), std::defer_lock);
  if (std::exchange(adapter_changed_, false)) lock.lock();
  return batch.decode(context_.get(), model_->name());
}

LaneSequence LaneMemory::add_sequence() {
  LaneSequence out;
  if (free_ids_.empty()) return out;
  out.id = free_ids_.back();
  free_ids_.pop_back();
  return out;
}

void LaneMemory::cut(LaneSequence& sequence, std::size_t keep) {
  if (sequence.id < 0 || keep >= sequence.cells.size()) return;
  if (context_) llama_memory_seq_rm(llama_get_memory(context_.get()), sequence.id, static_cast<llama_pos>(keep), -1);
  ledger_.release(sequence.cells, keep);
}

void LaneMemory::drop(LaneSequence& sequence) {
  if (sequence.id < 0) return;
  cut(sequence, 0);
  free_ids_.push_back(std::exchange(sequence.id, -1));
}

void LaneMemory::share(const LaneSequence& from, std::size_t count, LaneSequence& to) {
  llama_memory_seq_cp(llama_get_memory(context_.get()), from.id, to.id, 0, static_cast<llama_pos>(count));
  ledger_.share(from.cells, count, to.cells);
}

SequenceBytes LaneMemory::save(const LaneSequence& from, std::size_t count) {
  llama_memory_t memory = llama_get_memory(context_.get());
  constexpr llama_seq_id kCopy = 0;
  llama_memory_seq_cp(memory, from.id, kCopy, 0, static_cast<llama_pos>(count));
  auto bytes = bytes_if_there_are(llama_state_seq_get_size(context_.get(), kCopy));
  const bool good = bytes && bytes->size() > 0 &&
                    llama_state_seq_get_data(context_.get(), bytes->data(), bytes->size(), kCopy) == bytes->size();
  llama_memory_seq_rm(memory, kCopy, -1, -1);
  return good ? bytes : nullptr;
}

bool LaneMemory::restore(const PageBytes& bytes, std::size_t held, std::size_t count, LaneSequence& to) {
  if (llama_state_seq_set_data(context_.get(), bytes.data(), bytes.size(), to.id) == 0) {
    llama_memory_seq_rm(llama_get_memory(context_.get()), to.id, -1, -1);
    return false;
  }
  ledger_.add(to.cells, held);
  cut(to, count);
  return true;
}

Result<bool> LaneMemory::make_room(std::size_t count, bool& lost) {
  if (used() + count <= cells_) return true;
  const std::size_t need = used() + count;
  if (need > options_.max_cells) return false;
  const std::size_t cells = std::min(options_.max_cells, std::max(rounded(need), 2 * cells_));
  const auto state = bytes_if_there_are(llama_state_get_size(context_.get()));
  if (!state) return false;
  const bool saved = llama_state_get_data(context_.get(), state->data(), state->size()) > 0;
  context_.reset();  // before the new one is made: memory
  auto made = make(cells);
  const bool grown = made.has_value();
  if (!grown) made = make(cells_);  // as it was: no more is to be had
  lost = !made.has_value();
  if (lost) cells_ = 0;
  TAILOR_TRY(context_, std::move(made));
  if (grown) cells_ = cells;
  llama_adapter_lora* adapter = std::exchange(adapter_, nullptr);
  set_adapter(adapter);
  if (!saved || llama_state_set_data(context_.get(), state->data(), state->size()) == 0) {
    llama_memory_clear(llama_get_memory(context_.get()), true);
    lost = true;
  }
  return grown;
}

Status LaneMemory::reopen(std::size_t cells) {
  context_.reset();
  options_.first_cells = options_.max_cells = rounded(cells);
  return open();
}

}  // namespace tailor
