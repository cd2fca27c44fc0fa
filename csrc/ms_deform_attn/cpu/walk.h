// The order in which a part of the work meets its points.
#pragma once

#include "ms_deform_attn/cpu/kernels.h"
#include "ms_deform_attn/cpu/point_source.h"

namespace queryseg {
namespace QUERYSEG_ISA {

// Queries of one head that are worked on before the next head of a packed part, so that inputs are
// read while their pages are at hand.
constexpr int64_t kChunkQueries = 64;

// A (query, head): its number within (B, Q, M), its head counted from the part's first, and where
// its points start in the batch.
struct BatchRow {
  int64_t number;
  int64_t head;
  int start;
};

// Walks a part batch by batch: reads and locates the points and calls visit(row) for each BatchRow;
// with `write_grads`, the corner products that the visits left then become gradients.
template <typename A, typename Visit>
inline void for_batches(const AttnShape& shape, const Part& part, PointSource<A>& source,
                        const PointTables<A>& tables, Points<A>& points, bool write_grads,
                        const Visit& visit) {
  const int64_t heads = tables.per_query / tables.per_head;
  for (int64_t chunk = part.first_query; chunk < part.last_query; chunk += kChunkQueries) {
    const int64_t count = std::min(kChunkQueries, part.last_query - chunk);
    std::array<int64_t, kChunkQueries> numbers;
    for (int64_t place = 0; place < count; ++place) {
      numbers[place] = part.query(chunk + place);
    }
    source.begin(part.image, numbers.data(), count);
    for (int64_t head = part.first_head; head < part.last_head; head += heads) {
      for (int64_t first = 0; first < count; first += tables.queries) {
        const int64_t queries = std::min<int64_t>(tables.queries, count - first);
        points.count = static_cast<int>(queries) * tables.per_query;
        const auto for_queries = [&](const auto& run) {
          for (int64_t i = 0; i < queries; ++i) {
            run(QueryHeads{part.image, numbers[first + i], first + i, head, heads},
                static_cast<int>(i) * tables.per_query);
          }
        };
        for_queries([&](const QueryHeads& at, int start) { source.read(at, start, points); });
        locate(tables, points);
        for_queries([&](const QueryHeads& at, int start) {
          const int64_t number = (at.image * shape.queries + at.query) * shape.heads + head;
          for (int64_t i = 0; i < heads; ++i) {
            visit(BatchRow{number + i, head - part.first_head + i,
                           start + static_cast<int>(i) * tables.per_head});
          }
        });
        if (write_grads) {
          differentiate(tables, points);
          for_queries(
              [&](const QueryHeads& at, int start) { source.write_grads(at, start, points); });
        }
      }
    }
  }
}

}  // namespace QUERYSEG_ISA
}  // namespace queryseg
