#pragma once
/// Who did what, in a chain of hashes: a change of one entry breaks all that follow.
///
///   hash_n = SHA-256(hash_{n-1} || canonical_n), hashes as 64 hex characters, hash_0 = 64 zeros
///   canonical_n = {"action":…,"actor":…,"at":…,"details":…,"object":…,"seq":n}, keys sorted, no blanks
///
/// Who can write the file can forge a whole chain or cut its end; the anchor that verify() takes, kept elsewhere (a
/// log server, paper), shows that.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "store/database.h"
#include "store/store_context.h"

namespace tailor {

/// Without content: no prompts, no answers, no secrets. At most 16 KiB of details.
struct AuditEntry {
  std::string actor;   // id of a key, or a word: "command line"
  std::string action;  // "key.create", "package.promote", …
  std::string object;  // what it was done to
  Json details = Json::object();
};

struct AuditRecord {
  std::int64_t seq = 0;
  std::int64_t at = 0;
  AuditEntry entry;
  std::string hash;
};

/// Where a chain stood.
struct AuditAnchor {
  std::int64_t count = 0;
  std::string hash;
};

struct AuditVerdict {
  bool intact = true;
  AuditAnchor head;               // of the intact part
  std::int64_t first_broken = 0;  // seq; 0: none
  std::string reason;             // empty where intact
};

/// The actor of what is done with the store's directory, not over HTTP.
inline constexpr const char* kCommandLine = "command line";

/// Appends as part of a transaction: what was done and its entry are there together or not at all.
Result<AuditAnchor> append_audit(Transaction& transaction, std::int64_t at, const AuditEntry& entry);

/// Threads and processes: appends take turns; each gets the next number.
class AuditLog {
 public:
  explicit AuditLog(StoreContext context) : context_(context) {}

  Result<AuditAnchor> append(const AuditEntry& entry);
  Result<AuditAnchor> head() const;
  /// Entries after number `after`, at most `limit`, the oldest first.
  Result<std::vector<AuditRecord>> entries(std::int64_t after, std::int64_t limit) const;
  /// Walks the chain in steps, without keeping writers out. An Error is a failure to read, not a finding.
  Result<AuditVerdict> verify(const std::optional<AuditAnchor>& anchor = std::nullopt) const;

 private:
  StoreContext context_;
};

}  // namespace tailor
