//! Values held within bounds.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMillisecondType,
};
use arrow::error::ArrowError;

use super::Applied;

/// Each one value of the column's type.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) min: Option<ArrayRef>,
    pub(super) max: Option<ArrayRef>,
}

impl Bounds {
    pub(super) fn apply(&self, column: &ArrayRef) -> Result<Applied, ArrowError> {
        match column.data_type() {
            DataType::Int32 => Ok(self.clamp::<Int32Type>(column)),
            DataType::Int64 => Ok(self.clamp::<Int64Type>(column)),
            DataType::Float64 => Ok(self.clamp::<Float64Type>(column)),
            DataType::Decimal128(..) => Ok(self.clamp::<Decimal128Type>(column)),
            DataType::Timestamp(..) => Ok(self.clamp::<TimestampMillisecondType>(column)),
            other => Err(ArrowError::CastError(format!("{other} has no bounds"))),
        }
    }

    fn clamp<T: ArrowPrimitiveType>(&self, column: &ArrayRef) -> Applied {
        let values: &PrimitiveArray<T> = column.as_primitive();
        let bound = |bound: &Option<ArrayRef>| bound.as_ref().map(|bound| bound.as_primitive::<T>().value(0));
        let (min, max) = (bound(&self.min), bound(&self.max));
        let clamped = |value: T::Native| match (min, max) {
            (Some(min), _) if value < min => min,
            (_, Some(max)) if value > max => max,
            _ => value,
        };
        let is_beyond = |value: T::Native| min.is_some_and(|min| value < min) || max.is_some_and(|max| value > max);
        // what lies under a null may look so too: it is not counted
        if !values.values().iter().any(|value| is_beyond(*value)) {
            return Applied::NOTHING;
        }
        let changed = values.iter().flatten().filter(|value| is_beyond(*value)).count() as u64;
        if changed == 0 {
            return Applied::NOTHING;
        }
        let column = values.unary::<_, T>(clamped).with_data_type(values.data_type().clone());
        Applied::to(Arc::new(column), changed)
    }
}
