#pragma once
/// JSON Schema (draft 2020-12, and what older drafts share with it) as a grammar. Enforced or refused: every keyword is
/// either an annotation, or held by every text of the grammar, or named in an error with its path. The grammar may
/// allow less than the schema does, never more:
///
/// - members stand in the order of "properties"; further ones follow, their names written without escapes
/// - an object that names properties has no others unless "additionalProperties" allows them (OpenAI's strict mode);
///   one without properties is free
/// - "properties" without "type" means an object, and so on for the keywords of the other types
/// - white space as infer/json_grammar.h, numbers as infer/number_range.h say; constants as they are printed
/// - an array with "prefixItems" has no further items unless "items" allows them
///
/// Enforced: type, enum, const, properties, required, additionalProperties, minProperties and maxProperties (where they
/// can be counted), items, prefixItems, minItems, maxItems, minLength, maxLength, pattern (infer/regex_grammar.h),
/// minimum, maximum, exclusiveMinimum, exclusiveMaximum, anyOf, oneOf (where its branches are plainly disjoint), allOf,
/// local $ref (recursive ones too), and the formats date-time, date, time, duration, email, hostname, ipv4, ipv6, uuid;
/// other formats are annotations, as the standard has them. Refused: everything else, among it not, if, dependent…,
/// patternProperties, propertyNames, contains, uniqueItems, multipleOf; those formats beside enum or const; schemas
/// above 256 KiB, deeper than 64, with more than 1000 properties or 10,000 values, or whose grammar would be heavier
/// than GrammarLimits allow; references that lead to themselves; constraints that contradict one another.

#include <string>

#include "core/json.h"
#include "core/result.h"
#include "infer/grammar.h"

namespace tailor {

/// `where` begins the path in errors: "response_format.json_schema.schema".
Result<Grammar> schema_grammar(const Json& schema, const std::string& where);

/// Whether the schema is nested no deeper than it may be: to be asked before anything else that visits all of it.
Status check_schema_depth(const Json& schema, const std::string& where);

/// Any JSON object: response_format {"type": "json_object"}.
Grammar json_object_grammar();

}  // namespace tailor
