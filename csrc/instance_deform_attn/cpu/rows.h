// Rows of pixels of one instance after the other.
#pragma once

namespace queryseg {
namespace QUERYSEG_ISA {
namespace {

inline int64_t image_of(const InstanceInputs& inputs, int64_t instance) {
  return inputs.image_index ? inputs.image_index[instance] : 0;
}

template <typename A, int kC, int kJ, int kK>
void forward_rows(const InstanceForward& args, int64_t first_row, int64_t last_row) {
  constexpr int kLanes = Vec<A>::kLanes;
  const InstanceShape& shape = args.inputs.shape;
  const Attention<A, kC, kJ, kK> attention(args.inputs);
  const MapLayout& layout = attention.layout();
  RowCodes<A> row_codes(args.inputs);
  for (int64_t at = first_row; at < last_row; ++at) {
    const int64_t instance = at / shape.height;
    const int64_t row = at % shape.height;
    const int64_t image = image_of(args.inputs, instance);
    if (at == first_row || row == 0) {
      row_codes.start_instance(instance);
    }
    const Layers<const A> layer(
        static_cast<const A*>(args.inputs.dynamic_weights) + instance * shape.dynamic_weights(),
        attention.layers());
    const A* codes = row_codes.of_row(row, ValidSize(args.inputs, image));
    const A* query =
        static_cast<const A*>(args.query_maps) + image * layout.query_size + row * layout.query_row;
    const A* value = static_cast<const A*>(args.value_maps) + image * layout.value_size;
    A* output = static_cast<A*>(args.output) + at * shape.width;
    for (int64_t column = 0; column < shape.width; column += kLanes) {
      const Vec<A> logit =
          attention.forward(layer, query + column, codes + column, value, A(row), A(column));
      const int64_t count = std::min<int64_t>(kLanes, shape.width - column);
      if (count == kLanes) {
        logit.store(output + column);
      } else {
        logit.store_some(output + column, static_cast<int>(count));
      }
    }
  }
}

template <typename A, int kC, int kJ, int kK>
void backward_rows(const InstanceBackward& args, const InstanceRun& run) {
  constexpr int kLanes = Vec<A>::kLanes;
  const InstanceShape& shape = args.inputs.shape;
  const AttentionGradients<A, kC, kJ, kK> attention(args.inputs);
  const MapLayout& layout = attention.layout();
  const int64_t weights = shape.dynamic_weights();
  RowCodes<A> row_codes(args.inputs);
  const Scratch<A> memory(weights * kLanes);
  auto* sum = reinterpret_cast<Vec<A>*>(memory.get());
  const Layers<Vec<A>> sums(sum, attention.layers());
  const int64_t first_instance = run.first_row / shape.height;
  const int64_t first_image = image_of(args.inputs, args.order[first_instance]);
  for (int64_t at = run.first_row; at < run.last_row; ++at) {
    const int64_t instance = args.order[at / shape.height];
    const int64_t row = at % shape.height;
    const int64_t image = image_of(args.inputs, instance);
    if (at == run.first_row || row == 0) {
      row_codes.start_instance(instance);
      std::fill_n(sum, weights, Vec<A>::zero());
    }
    const Layers<const A> layer(
        static_cast<const A*>(args.inputs.dynamic_weights) + instance * weights,
        attention.layers());
    const A* codes = row_codes.of_row(row, ValidSize(args.inputs, image));
    const int64_t query_at = row * layout.query_row;
    const A* query = static_cast<const A*>(args.query_maps) + image * layout.query_size + query_at;
    const A* value = static_cast<const A*>(args.value_maps) + image * layout.value_size;
    A* grad_query =
        static_cast<A*>(run.grad_query_maps) + (image - first_image) * layout.query_size + query_at;
    A* grad_slots =
        static_cast<A*>(run.grad_value_slots) + (image - first_image) * layout.slots_size();
    const A* grad =
        static_cast<const A*>(args.grad_output) + (instance * shape.height + row) * shape.width;
    for (int64_t column = 0; column < shape.width; column += kLanes) {
      const int count = static_cast<int>(std::min<int64_t>(kLanes, shape.width - column));
      attention.backward(layer, query + column, codes + column, value, A(row), A(column),
                         Vec<A>::load_some(grad + column, count), count, sums, grad_query + column,
                         grad_slots);
    }
    if (row + 1 == shape.height || at + 1 == run.last_row) {
      A* grads = static_cast<A*>(run.grad_dynamic_weights) +
                 (at / shape.height - first_instance) * weights;
      for (int64_t i = 0; i < weights; ++i) {
        grads[i] = sum[i].sum();
      }
    }
  }
}

}  // namespace
}  // namespace QUERYSEG_ISA
}  // namespace queryseg
