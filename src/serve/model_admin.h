#pragma once
/// Models loaded and dropped while the server runs: by the command line's words when it starts, by HTTP later.

#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "core/cancel.h"
#include "core/log.h"
#include "serve/served_model.h"
#include "store/store.h"

namespace tailor {

/// Called with a model's name when all is ready and just before it is put or removed: the place of an entry in the
/// audit log. An error leaves everything as it was, and is what the call returns.
using BeforeChange = std::function<Status(const std::string& id)>;

/// Threads: any; one model is loaded at a time, another call meanwhile is kUnavailable.
/// Over HTTP only names come in: packages of the store, base models of the models' directory, adapters of the store or
/// under one directory that the server's owner named. No path of the request's own is ever opened.
class ModelAdmin {
 public:
  /// `store` may be null: no packages by name. `adapters_root` may be empty: no adapters by path.
  ModelAdmin(ModelRegistry& models, Store* store, ModelLoadOptions options, std::filesystem::path adapters_root,
             Logger& log)
      : models_(models),
        store_(store),
        options_(std::move(options)),
        adapters_root_(std::move(adapters_root)),
        log_(log) {}

  bool takes_adapters() const { return !adapters_root_.empty(); }
  Store* store() const { return store_; }

  /// "NAME" or "NAME@VERSION" of the store; the model is called `id`, or NAME where that is empty. One without a
  /// version follows what is in production at every follow_production().
  Result<ServedModelPtr> load_stored(const std::string& reference, const std::string& id,
                                     const BeforeChange& before = {});
  /// A base model of the models' directory, by its name there.
  Result<ServedModelPtr> load_base(const std::string& name, const std::string& id, const BeforeChange& before = {});
  /// An adapter of `parent` (empty: the first model): a package of the store.
  Result<ServedModelPtr> load_stored_adapter(const std::string& reference, const std::string& parent,
                                             const std::string& id, const BeforeChange& before = {});
  /// The same from a path under the adapters' root; relative ones start there. A directory with links in it is refused.
  Result<ServedModelPtr> load_adapter(const std::filesystem::path& path, const std::string& parent,
                                      const std::string& id, const BeforeChange& before = {});
  Status remove(const std::string& id, const BeforeChange& before = {});
  /// Loads what was promoted or rolled back since; failures are warned of and leave the old version. False: another
  /// model is being loaded, and nothing was looked at; ask again when it is there. After `stop` no other one is begun.
  bool follow_production(const CancelToken& stop = {});

 private:
  /// Of another source than a name of the store, which is followed no longer.
  Result<ServedModelPtr> put(std::unique_ptr<ServedModel> model, const BeforeChange& before);
  /// `followed`: only while it still is. Under loading_.
  Result<ServedModelPtr> put_stored(const std::string& reference, const std::string& id, bool followed,
                                    const BeforeChange& before);
  Result<ServedModelPtr> put_adapter(const std::filesystem::path& path, const std::string& parent,
                                     const std::string& id, const BeforeChange& before);
  /// Clients are told no paths, so the log is.
  Error told(const std::string& name, Error error) const;

  ModelRegistry& models_;
  Store* store_;
  ModelLoadOptions options_;
  std::filesystem::path adapters_root_;
  Logger& log_;
  std::mutex loading_;
  std::mutex mutex_;
  std::map<std::string, PackageRecord> following_;  // by model id: what is served of a name without a version
};

}  // namespace tailor
