#pragma once
/// One llama.cpp context as a place for sequences: which of them exist, how many cells they take, and how beginnings
/// are shared between them. Internal to this module.

#include <cstdint>
#include <memory>
#include <vector>

#include "infer/cell_ledger.h"
#include "infer/kept_prefixes.h"
#include "infer/llama_context.h"

namespace tailor {

/// A place in the context. Positions are numbered from 0; cells.size() of them are computed.
struct LaneSequence {
  std::int32_t id = -1;  // -1: none
  CellList cells;
};

struct LaneMemoryOptions {
  int sequences = 64;              // at most
  std::size_t first_cells = 1024;  // it grows from here, by doubling
  std::size_t max_cells = 1024;
  int batch = 512;  // tokens a call
  bool f32_cache = false;
  bool flash_attention = false;
};

/// Threads: one at a time.
class LaneMemory {
 public:
  LaneMemory(std::shared_ptr<const LoadedModel> model, const LaneMemoryOptions& options);

  llama_context* context() const { return context_.get(); }
  /// Makes the context where there is none yet.
  Status open();
  /// Drops the context; open() makes one as small as the first. All sequences must have been dropped.
  void close();
  void set_adapter(llama_adapter_lora* adapter);  // null: none
  /// Computes the batch, which must fit.
  Status decode(DecodeBatch& batch);
  void set_threads(int threads) { llama_set_n_threads(context_.get(), threads, threads); }

  bool has_sequence() const { return !free_ids_.empty(); }
  LaneSequence add_sequence();
  /// Drops what follows the first `keep` positions; at 0 the sequence itself.
  void cut(LaneSequence& sequence, std::size_t keep);
  void drop(LaneSequence& sequence);
  /// The first `count` positions of `from` become those of `to`, which is empty; no cell is copied.
  void share(const LaneSequence& from, std::size_t count, LaneSequence& to);
  /// Cells for tokens that the next decode puts at the end of the sequence.
  void extend(LaneSequence& sequence, std::size_t count) { ledger_.add(sequence.cells, count); }

  /// The first `count` positions as bytes; null: there is no memory for them, or llama.cpp did not hand them out.
  SequenceBytes save(const LaneSequence& from, std::size_t count);
  /// The reverse, into an empty sequence: `held` positions, of which `count` are kept. False: no room in one piece.
  bool restore(const PageBytes& bytes, std::size_t held, std::size_t count, LaneSequence& to);

  std::size_t used() const { return ledger_.used(); }
  std::size_t cells() const { return cells_; }  ///< of the context; none: 0
  std::size_t max_cells() const { return options_.max_cells; }
  /// What the context has by now it keeps.
  void set_max_cells(std::size_t cells);
  std::size_t own(const LaneSequence& sequence) const { return ledger_.own(sequence.cells); }
  /// Room for so many more cells, by growing where that helps. False: there is none. `lost`: all sequences are empty
  /// now and must be computed again; with an error there is no context either, until open().
  Result<bool> make_room(std::size_t count, bool& lost);
  /// A new and empty context of so many cells, which does not grow. All sequences must have been dropped.
  Status reopen(std::size_t cells);

 private:
  Result<LlamaContextPtr> make(std::size_t cells) const;
  std::shared_ptr<const LoadedModel> model_;
  LaneMemoryOptions options_;
  std::size_t wanted_first_cells_;
  LlamaContextPtr context_;
  llama_adapter_lora* adapter_ = nullptr;
  bool adapter_changed_ = false;  // since the last step
  std::size_t cells_ = 0;
  CellLedger ledger_;
  std::vector<std::int32_t> free_ids_;
};

}  // namespace tailor
