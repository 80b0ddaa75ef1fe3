#pragma once
/// What JSON Schema's keywords mean to us, references, and several schemas as one.

#include <string>
#include <string_view>

#include "core/json.h"
#include "core/result.h"

namespace tailor {

enum class KeywordRole { kAnnotation, kEnforced, kRefused };

/// Annotations constrain nothing ("title", "default", "x-…"); what we do not know is refused.
KeywordRole role_of(std::string_view keyword);
/// The type of the values that a keyword speaks of; empty: all of them.
std::string_view type_of_keyword(std::string_view keyword);
/// Whether a keyword beside annotations and `except` is there.
bool constrains(const Json& schema, std::string_view except = {});

/// "minLength" or "minimum" that `where` names: what is wrong with a schema, where, and what to do.
Error schema_error(const std::string& path, std::string_view keyword, std::string_view what,
                   std::string_view hint = {});

/// The part of `root` that a local reference ("#/$defs/x") names. `path` is of the schema that refers.
Result<const Json*> follow_reference(const Json& root, const Json& reference, const std::string& path);

/// Equal for values that JSON Schema calls equal, and for no others: members have no order, and 1 is 1.0.
std::string value_key(const Json& value);

/// Schemas without $ref and allOf at their top, whose other keywords say the same. Counts its steps, so that schemas
/// which grow without end are refused.
class SchemaFlattener {
 public:
  explicit SchemaFlattener(const Json& root) : root_(root) {}  // which must outlive it
  Result<Json> flat(const Json& schema, const std::string& path);
  /// A schema that allows what both do. Neither has $ref or allOf at its top.
  Result<Json> merged(const Json& a, const Json& b, const std::string& path);

 private:
  Result<Json> flat_at(const Json& schema, const std::string& path, int depth);
  const Json& root_;
  std::size_t steps_ = 0;
};

/// Whether no value is allowed by both; false where that is not plain to see: other types, other constants, or objects
/// that demand a property with other constants. Both flat.
Result<bool> disjoint_schemas(SchemaFlattener& flattener, const Json& a, const Json& b, const std::string& path,
                              int depth = 0);

/// An integer is a number too, and 2.0 is an integer.
bool has_type(const Json& value, std::string_view type);

}  // namespace tailor
